"""Responses that stay: asked for again, continued by `previous_response_id`, run in the background, cancelled.

The gateway keeps its own copy of every response whose caller did not say `store: false`, whoever answered it, and shows
it to its tenant only. The id is the upstream's own where the upstream speaks the Responses API, else one of ours. The
copy is what `GET` returns, so it is exact, costs nothing, and is there when the upstream is not; what the upstream
keeps of a request that was passed to it is under the upstream's own rules.

A conversation is rebuilt from these copies and sent whole: no upstream gets a `previous_response_id`. So every turn may
go to another target, to another account of the same one, or on after a failover, and no caller can reach a
conversation of another tenant that lies under the gateway's own account.

A response with `background: true` is run here whatever its target, with an id of ours. Its process says each second
that it is alive; what a dead process has left running ends as failed, by whichever process sees it.
"""
