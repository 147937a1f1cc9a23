"""A cell's database: rows to tables, units of work, and the check that the schema fits this version."""
