"""The inbox of the incident: a buggy job, first without statekit and then with it. Run ``python -m examples.inbox``.

* ``states.py``, ``model.py``: the application as it was.
* ``model_guarded.py``: the same model with one declaration added; nothing else differs between the two files.
* ``capture.py``: the job with the bug, the same function in every run.
* ``mails.py``: the 1,418 messages, and what is asked of the database afterwards.
* ``runs.py``: the job without statekit, with it, and as a developer sees it.
* ``slow.py``, ``bulk.py``: the same messages behind a platform with a time-out, in one call and in several.
* ``__main__.py``, ``screen.py``: the story, and how it is printed.
"""
