"""The part of the report on treatments: one file a picture or table."""
