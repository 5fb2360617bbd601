"""What a scene is: posed frames, cameras, images, truth and point clouds."""
