"""The methods of the tables, one file each. Methods never import each other."""
