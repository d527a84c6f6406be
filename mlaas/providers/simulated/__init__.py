"""A server that speaks every provider's wire format, with exact usage, and with the faults that a request asks for.

`python -m mlaas.providers.simulated --port 9100` starts it and prints its URL. Below that URL each vendor has its own
base: `/openai/v1`, `/anthropic/v1`, `/gemini/v1beta/openai`, `/perplexity/v1` (agent API; legacy Sonar too), `/xai/v1`;
`/v1` speaks OpenAI's formats without anyone's quirks.

Answers depend on the seed and the prompt alone. A prompt has a token for every four bytes of each of its texts, an
answer one for every piece that a stream carries, so tests can count on the usage.

**Faults.** A model called `sim-FAULT`, or the header `x-sim-fault: FAULT`, asks for one:

| fault | what happens |
| --- | --- |
| `400` ... `599` | that status, in the vendor's own error shape; 429 and 529 with `retry-after` |
| `quota` | the account is out of money, as the vendor says it |
| `slow` | the first byte of the answer comes after `stall` seconds |
| `stall` | in mid-stream, nothing more comes for `stall` seconds |
| `truncated` | the connection breaks in the middle of an event, or of the answer |
| `short` | a stream ends without its last events |
| `malformed` | JSON that is none, as answer or as event in mid-stream |
| `disconnect` | the connection breaks before the answer |
| `error-first` | a stream, with status 200, whose first event is an error |
| `error` | the same in mid-stream; without a stream, an error as answer with status 200 |
| `wrong-usage` | numbers of tokens that cannot be |
| `no-usage` | no usage at all |
| `endless` | a stream that never ends |

**Options** follow the model's name after `@`, as in `sim-429@after=2,form=ms` or, through a gateway that takes no such
name, `sim-429@after:2+form:ms`; or they come as `x-sim-options`. There are: `tokens=16` of text, `rate=0` tokens per
second (0: as fast as it goes), `latency=0` seconds to the first byte, `stall=30`, `after=7` seconds to wait, `form=` of
that wait (`seconds`, `float`, `date`, `ms`, `go`, `rfc3339`, `retry-info`, `none`), `cached=0` and `written=0` tokens
of the prompt read from and written to the cache, `reasoning=4` tokens where the request asks for reasoning.

`GET /simulator` tells what was seen: requests, those under way, those whose caller left, and faults by name.
"""
