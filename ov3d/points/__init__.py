"""Learning from point clouds with posed images (3DSS-VLG)."""
