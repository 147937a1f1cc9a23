"""What the API of this cell can do, in domain words: one module a subject. Called by api_cell.http; knows no HTTP."""
