"""Checks of ours, which schemathesis runs beside its own."""

import schemathesis


@schemathesis.check
def closed_without_a_session(ctx, response, case):
    """For the run of nobody: what is not public answers 401, whatever is sent along."""
    public = case.operation.definition.raw["x-action"] == "public"
    # A method that the path does not take is turned away before anybody asks who is calling.
    other_method = case.method.upper() != case.operation.method.upper()
    if not public and not other_method:
        assert response.status_code == 401, f"{response.status_code} without a session"
