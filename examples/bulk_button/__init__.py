"""The button of the incident, on a page that goes on by itself. Run ``python -m examples.bulk_button``.

* ``model.py``: the messages, their states, and the tables of the ledger.
* ``app.py``: the application: the page, and what its button calls.
* ``page.html``, ``page.css``, ``page.js``: the page. Nothing is loaded from elsewhere.
* ``inbox.py``: 1,418 messages that are slow to move, and five that are an agent's work.
* ``platform.py``: what stands before the application and ends a request after 10 seconds, with a page in HTML.
* ``__main__.py``: serves it all on this machine.
"""
