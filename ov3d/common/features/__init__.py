"""2D features: crops, their encoding, the store that keeps them, and their refinement.

    CropPlan (crops.py) -> extract_features (extract.py) -> FeatureStore (store.py) -> features at pixels (views.py)

This layer is given an encoder and imports none itself.
"""
