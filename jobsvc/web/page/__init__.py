"""The web page: its document, modules and styles, which `web/endpoints/page.py` serves as they are."""
