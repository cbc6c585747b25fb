"""What developers measure. Run ``./dev bench``, or a module; each module's docstring says what it measures."""
