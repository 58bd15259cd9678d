"""Parts of the ladder of rules of guidance."""
