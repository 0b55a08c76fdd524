"""A model behind HTTP: a page for people, an API for programs. The only door to FastAPI and uvicorn (extra `serve`)."""

#: Packages of the extra, by the name they are imported under.
PACKAGES = ("fastapi", "uvicorn", "python_multipart")
