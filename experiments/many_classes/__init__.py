"""Parts of the study of guidance among many classes."""
