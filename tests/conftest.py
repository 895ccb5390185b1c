"""Being here puts this folder on the path, so that tests of all folders can import `lake_rows` and `reference`."""
