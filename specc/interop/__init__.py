"""What others publish, to and from specc: configs (`importing`, `exporting`) and weights (`weights`), by mappings."""
