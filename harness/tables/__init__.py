"""Result tables: pure functions of table definitions, published figures and recorded runs."""
