"""The pictures of the rules of guidance."""
