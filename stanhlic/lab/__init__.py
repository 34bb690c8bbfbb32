"""What only the papers need, each module on top of those before it: tables, classical, curves, plots; reproduce, items; bench."""
