"""Parts of the study of drop rates."""
