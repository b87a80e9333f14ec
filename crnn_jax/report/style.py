"""The style sheet of the report: one column for text, figures side by side, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfbf9; --ink: #22262b; --muted: #6f747b; --hairline: #e4e1da; --panel: #f4f2ed;
  --accent: #2f6690; --soft: #a9c4d8; --wrong: #b4472e; --wrong-soft: #f6ddd5;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #17191c; --ink: #e4e2dd; --muted: #979ca4; --hairline: #2e3238; --panel: #1f2226;
    --accent: #8bbbe0; --soft: #3c5a72; --wrong: #ee957b; --wrong-soft: #4c2a20;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 3.5rem 2rem 5rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; font-weight: 650; letter-spacing: -0.015em; }
h2 { margin: 0; font-size: 1.2rem; font-weight: 650; letter-spacing: -0.005em; }
header p, .note { margin: 0.35rem 0 0; max-width: 52rem; color: var(--muted); }
section { margin-top: 3.2rem; padding-top: 1.4rem; border-top: 1px solid var(--hairline); }
.note { margin-bottom: 1.3rem; }
figure { margin: 0; min-width: 0; overflow-x: auto; }
.pair { display: flex; flex-wrap: wrap; gap: 2rem 3rem; align-items: flex-start; }
.pair > * { flex: 1 1 26rem; }
svg { display: block; max-width: 100%; height: auto; }
.pair > .lists { flex: 0 1 auto; }
.pair > .large { flex-basis: 100%; }

table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { font-weight: 500; font-size: 0.82rem; color: var(--muted); text-align: left; vertical-align: bottom; }
th, td { padding: 0.34rem 0; border-bottom: 1px solid var(--hairline); white-space: nowrap; }
th + th, td + td { padding-left: 1.8rem; }
tbody tr:last-child td { border-bottom: 0; }
.numbers th + th, .numbers td + td { text-align: right; }
.lists { display: flex; flex-wrap: wrap; gap: 1.6rem 2.2rem; align-items: flex-start; }
.lists td { padding-top: 0.16rem; padding-bottom: 0.16rem; }
.lists th + th, .lists td + td { padding-left: 0.9rem; }
.lists td:nth-child(3) { color: var(--muted); }
.lists b { font: 600 15px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }

.scroll { overflow-x: auto; }
.mistakes { width: 100%; min-width: 60rem; table-layout: fixed; }
.mistakes th.picture { width: 11.5rem; }
.mistakes th.number { width: 6.2rem; }
.mistakes th.source { width: 15rem; }
.mistakes td { padding-top: 0.55rem; padding-bottom: 0.55rem; vertical-align: middle; }
.mistakes .number { text-align: right; }
.mistakes img { display: block; max-width: 100%; max-height: 5.6rem; border-radius: 2px; object-fit: contain; }
.mistakes .upright { height: 5.6rem; }
.mistakes .wide { height: 3.2rem; object-position: left; }
.mistakes .words { overflow-x: auto; }
.mistakes code, .transforms code {
  font: 16px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre;
}
.mistakes mark, .transforms mark { background: var(--wrong-soft); color: var(--wrong); border-radius: 2px; }
.quantiles { margin: 1.6rem 0 2.6rem; }
.transforms { width: 100%; min-width: 70rem; }
.transforms th, .transforms td { vertical-align: middle; }
.transforms td { padding-top: 0.55rem; padding-bottom: 0.55rem; }
.transforms tbody th { padding-top: 1.5rem; color: var(--ink); font-size: 0.95rem; }
.transforms tbody + tbody th { padding-top: 2.2rem; }
.transforms th.picture { text-align: center; }
.transforms .number { text-align: right; }
.transforms img { display: block; margin: 0 auto; border-radius: 2px; }
.transforms td + td img { outline: 1px solid var(--hairline); }
.warning { margin: 0 0 1.3rem; max-width: 52rem; color: var(--wrong); font-weight: 600; }
td.source { font-size: 0.8rem; line-height: 1.4; color: var(--muted); white-space: normal; overflow-wrap: anywhere; }

text { fill: var(--muted); font-size: 12px; font-variant-numeric: tabular-nums; }
text.small { font-size: 10px; }
text.value { fill: var(--ink); font-size: 11px; }
text.glyph { fill: var(--ink); font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.grid { stroke: var(--hairline); }
.count { fill: var(--hairline); }
.line { fill: none; stroke: var(--soft); stroke-width: 1.5; }
.interval { stroke: var(--soft); stroke-width: 1.5; }
.point { fill: var(--accent); }
.bar { fill: var(--soft); }
.level { stroke: var(--accent); stroke-width: 2; }
.gap { fill: var(--wrong); fill-opacity: 0.35; }
.ideal { stroke: var(--muted); stroke-dasharray: 4 4; }
.field { fill: var(--panel); }
.self { fill: var(--hairline); }
.cell { fill: var(--accent); }
"""
