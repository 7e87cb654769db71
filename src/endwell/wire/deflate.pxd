# This file makes setup.py compile the module. No type is declared.
