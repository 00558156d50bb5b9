"""Router choices of a Hugging Face model, recorded while it reads prompts and answers them.

PyTorch and transformers come with the extra ``capture`` and are imported when a model is loaded.
"""
