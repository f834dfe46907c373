"""The report: one HTML file that is a pure function of table definitions, published figures and recorded runs."""
