"""A job in the words of others: OpenLineage, RO-Crate, Chrome's trace events. Each gives its text piece by piece."""
