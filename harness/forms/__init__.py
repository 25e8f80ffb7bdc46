"""The forms of journal entries: which fields each kind has, and of which types; the judges rely on them."""
