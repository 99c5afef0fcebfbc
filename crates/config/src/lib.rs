//! Every setting of kiln.toml, its default and its check.
