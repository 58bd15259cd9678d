"""Parts of the comparison of learned guidance scales."""
