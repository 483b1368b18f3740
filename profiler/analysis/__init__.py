"""Analysis computes and returns data; nothing here prints, plots or writes files."""
