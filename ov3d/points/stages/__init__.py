"""The stages of the points backend, one after the other, each from the files of the one before.

    scenes/NNNN-NAME/{lifted,index}.safetensors     fuse
                     pseudo-labels.safetensors      pseudo-label
                     pooled.safetensors             features over superpoints, where these are wanted
    specialise/{checkpoint.safetensors,curve.*}     specialise
    scenes/NNNN-NAME/specialised.safetensors        its index, where it is the last stage
    guide/{checkpoint.safetensors,curve.*}          guide
    scenes/NNNN-NAME/guided.safetensors             its index

Files that are there and were made from the same inputs are used; a stage that was interrupted is resumed.
"""
