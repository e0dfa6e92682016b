"""qvm-template: packages of templates, found, checked and installed (qvm-tools.md section 9)."""
