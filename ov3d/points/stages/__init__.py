"""The stages of the points backend, one after the other, each from the files of the one before.

    scenes/NNNN-NAME/{lifted,index}.safetensors     fuse
                     pseudo-labels.safetensors      pseudo-label
                     pooled.safetensors             features over superpoints, if enabled
    specialise/{checkpoint.safetensors,curve.*}     specialise
    scenes/NNNN-NAME/specialised.safetensors        its index, if it is the last stage
    guide/{checkpoint.safetensors,curve.*}          guide
    scenes/NNNN-NAME/guided.safetensors             its index

Existing files made from the same inputs are reused; an interrupted stage is resumed.
"""
