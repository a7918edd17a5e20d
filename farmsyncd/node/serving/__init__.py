"""The active cache over HTTP: which file a path names, what a conditional request gets, and the bytes."""
