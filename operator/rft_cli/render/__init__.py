"""Everything that the commands show: tables, charts, progress, and the texts of endings."""
