"""The stages of the nerf backend, scene by scene.

scenes/NNNN-NAME/field.{safetensors,jsonl,png}              field
                 distil.{safetensors,jsonl,png}             distil
                 {lifted,index,views}.safetensors           what distil leaves for queries
"""
