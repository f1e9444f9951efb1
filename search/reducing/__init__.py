"""The reducer: from effects to a smaller space, with the evidence beside every cut."""
