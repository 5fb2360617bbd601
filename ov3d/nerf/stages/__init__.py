"""The stages of the nerf backend, scene by scene.

scenes/NNNN-NAME/field.{safetensors,jsonl}                  field
                 distil.{safetensors,jsonl}                 distil
                 {lifted,index,views}.safetensors           what distil leaves to ask
"""
