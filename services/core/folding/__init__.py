"""A service that folds one topic into books and publishes another from them: what is the same whatever the books hold."""
