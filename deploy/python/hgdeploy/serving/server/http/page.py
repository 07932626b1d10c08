# SPDX-License-Identifier: Apache-2.0
"""The page at `/`: drop a picture on it and see its classes, and what serves it."""

from __future__ import annotations

import html
from collections.abc import Iterator

from hgdeploy._version import __version__
from hgdeploy.results.frame import framed
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models

_STYLE = (
    "body{max-width:60rem;margin:2rem auto;padding:0 1rem}h1{font-size:1.4rem}"
    "main{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:1.5rem}"
    "#drop{display:grid;place-items:center;min-height:16rem;border:2px dashed var(--line);"
    "border-radius:.5rem;color:var(--dim);cursor:pointer;text-align:center;overflow:hidden}"
    "#drop.over,#drop:focus-within{border-color:var(--bar)}#drop img{max-width:100%;"
    "max-height:24rem;display:block}#drop input{position:absolute;opacity:0;width:1px}"
    ".row{margin:0 0 .6rem}.row p{display:flex;justify-content:space-between;gap:1rem;margin:0}"
    ".row p span:first-child{overflow-wrap:anywhere}.bar{background:var(--head)}"
    ".bar div{height:.5em}.note{color:var(--dim)}.wrong{background:var(--failed);padding:.5rem}"
    "table{width:100%;margin-top:2rem}td,th{padding:.3rem .6rem;text-align:left;"
    "overflow-wrap:anywhere}select,input[type=password]{font:inherit;max-width:100%}"
    "@media(max-width:40rem){main{grid-template-columns:minmax(0,1fr)}#drop{min-height:10rem}"
    "thead{display:none}tr,td{display:block}td{border-bottom:0}tr{border-bottom:1px solid "
    "var(--line)}td:before{content:attr(data-of) ': ';color:var(--dim)}}"
)
_BODY = (
    "<h1>HGDeploy</h1><p>%s</p><main><label id='drop'><span>Drop a picture here, or click to "
    "choose one</span><input id='file' type='file' accept='image/*'></label>"
    "<div id='found' aria-live='polite'><p class='note'>The classes appear here.</p></div></main>"
)
# Texts are set as text, never as HTML: a label may be anything.
_SCRIPT = """
const $ = id => document.getElementById(id), drop = $('drop'), found = $('found');
const make = (kind, text, name) => {
  const one = document.createElement(kind);
  if (text !== undefined) one.textContent = text;
  if (name) one.className = name;
  return one;
};
function row(name, score) {
  const one = make('div', undefined, 'row'), line = make('p'), bar = make('div', undefined, 'bar');
  const fill = make('div');
  line.append(make('span', name), make('span', score.toFixed(4)));
  fill.style.width = 100 * Math.min(1, Math.max(0, score)) + '%';
  bar.append(fill);
  one.append(line, bar);
  return one;
}
function rows(answer) {
  if (answer.attributes) return [make('p', [].concat(answer.attributes).join(', '))];
  if (answer.scores) return answer.scores.map((score, i) => row('score ' + i, score));
  return answer.classes.map(one => row(one.label || 'class ' + one.id, one.score));
}
let asked = 0;
async function ask(file) {
  if (!file) return;
  const mine = ++asked, image = make('img'), [name, version] = $('model').value.split('/');
  image.alt = '';
  image.src = URL.createObjectURL(file);
  image.onload = () => URL.revokeObjectURL(image.src);
  image.onerror = () => image.replaceWith(make('span', file.name));
  drop.firstElementChild.replaceWith(image);
  const headers = {'Content-Type': 'application/octet-stream'}, start = performance.now();
  if ($('key')) headers.Authorization = 'Bearer ' + $('key').value;
  let parts;
  try {
    const place = 'predict?' + new URLSearchParams({model: name, version});
    const reply = await fetch(place, {method: 'POST', body: file, headers});
    const document = await reply.json(), took = performance.now() - start;
    const answer = document.predictions ? document.predictions[0] : document;
    if (answer.error) throw new Error(answer.error);
    const times = `${document.ms} ms in the server, ${took.toFixed(1)} ms in all`;
    parts = [...rows(answer), make('p', times, 'note')];
  } catch (error) {
    parts = [make('p', error.message, 'wrong')];
  }
  if (mine === asked) found.replaceChildren(...parts);
}
$('file').onchange = event => ask(event.target.files[0]);
drop.ondragover = event => { event.preventDefault(); drop.classList.add('over'); };
drop.ondragleave = () => drop.classList.remove('over');
drop.ondrop = event => {
  event.preventDefault();
  drop.classList.remove('over');
  ask(event.dataTransfer.files[0]);
};
"""
_HEADS = ("model", "version", "engine", "precision", "device", "input", "classes")


def page(models: Models, *, needs_key: bool) -> str:
    """Return the page of a server, as HTML.

    Args:
        models: what it serves.
        needs_key: its requests have to bring a key.
    """
    shown = models.all()[::-1]  # the last version of a model first
    options = "".join(
        f"<option value='{name}/{version}'>{name} (version {version})</option>"
        for name, version, _ in shown
    )
    ask = f"<label>Model <select id='model'>{options}</select></label>"
    if needs_key:
        ask += " <label>API key <input id='key' type='password' autocomplete='off'></label>"
    return framed("HGDeploy", _STYLE, _BODY % ask + "".join(_table(shown)), script=_SCRIPT)


def _table(models: list[tuple[str, str, ServedModel]]) -> Iterator[str]:
    yield f"<table><thead><tr>{''.join(f'<th>{head}</th>' for head in _HEADS)}</tr></thead><tbody>"
    for name, version, model in models:
        cells = zip(_HEADS, (name, version, *_facts(model)), strict=True)
        row = "".join(f"<td data-of='{head}'>{html.escape(cell)}</td>" for head, cell in cells)
        yield f"<tr>{row}</tr>"
    yield f"</tbody></table><p class='note'>hgdeploy {html.escape(__version__)}</p>"


def _facts(model: ServedModel) -> tuple[str, ...]:
    ran, taken = model.classifier.engine.runtime, model.input
    size = "x".join("any" if side < 0 else str(side) for side in taken.shape[1:])
    engine = f"{ran.engine} ({ran.library} {ran.version})"
    return (engine, ran.precision, ran.device, f"{taken.dtype} {size}", str(model.classes))
