"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const darkQuery = matchMedia("(prefers-color-scheme: dark)");
  const FONT = getComputedStyle(document.body).fontFamily;
  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: false };
  let printing = false;

  const colours = () => data.palette[darkQuery.matches && !printing ? "dark" : "light"];
  // plotly reads tags and entities in its texts; names of the target must stay text.
  const plain = (s) => s.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const lines = (s) => plain(s).replace(/\n/g, "<br>");

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const mix = (a, b, part) => {
    const [x, y] = [rgb(a), rgb(b)];
    return `rgb(${x.map((v, i) => Math.round(v + (y[i] - v) * part)).join(",")})`;
  };
  const inkOn = (hex) => {
    const [r, g, b] = rgb(hex);
    return 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#10161f" : "#ffffff";
  };

  const baseLayout = (c) => ({
    paper_bgcolor: c.surface,
    plot_bgcolor: c.surface,
    font: { family: FONT, size: 12, color: c.muted },
    showlegend: false,
    bargap: 0,
    hoverlabel: { bgcolor: c.page, bordercolor: c.line, align: "left", font: { family: FONT, size: 12.5, color: c.text } },
  });
  const axis = (c, more) => ({
    gridcolor: c.line, linecolor: c.line, zeroline: false, ticks: "", automargin: false, ...more,
  });

  // ---------------------------------------------------------------------- steps
  const RECORDED = ["data_wait", "forward", "backward", "optimizer", "other"];
  const UNRECORDED = ["data_wait", "unrecorded", "optimizer"];

  function stepTraces(c, chart) {
    const traces = [];
    chart.panels.forEach((panel, at) => {
      const y = at ? `y${at + 1}` : "y";
      for (const recorded of [true, false]) {
        const columns = panel.columns.filter((column) => column.recorded === recorded);
        if (!columns.length) continue;
        for (const key of recorded ? RECORDED : UNRECORDED) {
          const marker = { color: c[key], line: { width: 0 } };
          if (!recorded) {
            marker.opacity = key === "unrecorded" ? 1 : 0.5;
            if (key === "unrecorded") {
              marker.pattern = { shape: "/", size: 5, solidity: 0.4, fillmode: "replace", fgcolor: c.merged, bgcolor: c.sunken };
            }
          }
          traces.push({
            type: "bar", xaxis: "x", yaxis: y, marker,
            x: columns.map((column) => column.x),
            y: columns.map((column) => column.parts[key] || 0),
            width: columns.map((column) => column.n * (panel.columns.length > 120 ? 1 : 0.86)),
            customdata: columns.map((column) => plain(`${panel.title}, ${column.title}`)),
            hovertemplate: `%{customdata}<br>${data.words[key]} <b>%{y:.3g} ${chart.unit}</b><extra></extra>`,
          });
        }
      }
    });
    return traces;
  }

  function stepLayout(c, chart) {
    const count = chart.panels.length;
    const [above, below, each] = [22, 40, count > 4 ? 96 : count > 1 ? 132 : 210];
    const height = above + below + count * each + (count - 1) * 26;
    const inner = height - above - below;
    const total = (column) => Object.values(column.parts).reduce((a, b) => a + b, 0);
    const top = Math.max(...chart.panels.flatMap((panel) => panel.columns.map(total))) * 1.06;
    const edges = chart.panels.flatMap((panel) => panel.columns.flatMap((column) => [column.x - column.n / 2, column.x + column.n / 2]));
    const range = [Math.min(...edges), Math.max(...edges)];
    const layout = {
      ...baseLayout(c),
      height,
      barmode: "stack",
      margin: { l: 52, r: 8, t: above, b: below },
      xaxis: axis(c, { range, anchor: count > 1 ? `y${count}` : "y", showgrid: false, title: { text: "step", standoff: 6 }, tickformat: "d" }),
      annotations: [],
    };
    chart.panels.forEach((panel, at) => {
      const high = 1 - (at * (each + 26)) / inner;
      layout[at ? `yaxis${at + 1}` : "yaxis"] = axis(c, {
        range: [0, top], fixedrange: true, domain: [Math.max(0, high - each / inner), high], nticks: 4, ticksuffix: ` ${chart.unit}`,
      });
      layout.annotations.push({
        text: `<b>${plain(panel.title)}</b>`, x: 0, xref: "paper", xanchor: "left", y: high, yref: "paper", yanchor: "bottom",
        showarrow: false, font: { color: c.text, size: 12.5 },
      });
    });
    return layout;
  }

  // ------------------------------------------------------------------- timeline
  // Inside of a bar there is little room; the hover box has the whole name.
  const short = (name) => {
    if (name.startsWith("enumerate(DataLoader)")) return "DataLoader";
    if (name.startsWith("Optimizer.")) return name.split("#")[0];
    return name.slice(name.lastIndexOf("::") < 0 ? 0 : name.lastIndexOf("::") + 2).replace("evaluate_function: ", "");
  };

  function timelineTraces(c, chart) {
    const groups = new Map();
    chart.hue.forEach((hue, i) => {
      if (!groups.has(hue)) groups.set(hue, []);
      groups.get(hue).push(i);
    });
    return [...groups].map(([hue, at]) => ({
      type: "bar", orientation: "h",
      base: at.map((i) => chart.start[i]),
      x: at.map((i) => chart.width[i]),
      y: at.map((i) => chart.lane[i]),
      width: 0.94,
      marker: {
        color: at.map((i) => mix(c[hue], c.surface, chart.shade[i] * 0.13)),
        line: { width: 0.6, color: c.surface },
        ...(hue === "merged" ? { pattern: { shape: "/", size: 4, solidity: 0.4, fillmode: "replace", fgcolor: c.merged, bgcolor: c.sunken } } : {}),
      },
      text: at.map((i) => plain(short(chart.strings[chart.name[i]]))),
      textposition: "inside",
      insidetextanchor: "start",
      textangle: 0,
      insidetextfont: { family: FONT, size: 10, color: hue === "merged" ? c.text : inkOn(c[hue]) },
      customdata: at.map((i) => `<b>${plain(chart.strings[chart.name[i]])}</b><br>${lines(chart.strings[chart.about[i]])}`),
      hovertemplate: "%{customdata}<extra></extra>",
    }));
  }

  function timelineLayout(c, chart) {
    const rules = chart.tracks.slice(1).map((track) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, yref: "y", y0: track.first - 0.5, y1: track.first - 0.5,
      line: { color: c.line, width: 1 }, layer: "below",
    }));
    return {
      ...baseLayout(c),
      height: Math.max(3, chart.lanes) * 22 + 38,
      barmode: "overlay",
      hovermode: "closest",
      dragmode: "zoom",
      uniformtext: { mode: "hide", minsize: 9 },
      margin: { l: 18 + 7 * Math.max(...chart.tracks.map((track) => track.name.length)), r: 12, t: 8, b: 30 },
      shapes: rules,
      xaxis: axis(c, { range: [0, chart.length], ticksuffix: ` ${chart.unit}`, nticks: 12 }),
      yaxis: axis(c, {
        range: [chart.lanes - 0.5, -0.5], fixedrange: true, showgrid: false,
        tickvals: chart.tracks.map((track) => track.first),
        ticktext: chart.tracks.map((track) => plain(track.name)),
        tickfont: { color: c.text, size: 12 },
      }),
    };
  }

  // ----------------------------------------------------------------------- draw
  const charts = [];
  if (data.steps) charts.push(["steps-chart", data.steps, stepTraces, stepLayout]);
  data.timelines.forEach((chart, at) => charts.push([`timeline-${at}`, chart, timelineTraces, timelineLayout]));

  const whole = new Map();
  function draw(keep) {
    const c = colours();
    for (const [id, chart, traces, layout] of charts) {
      const element = document.getElementById(id);
      const made = layout(c, chart);
      whole.set(id, made.xaxis.range.slice());
      if (keep && element.layout) made.xaxis.range = element.layout.xaxis.range.slice();
      Plotly.react(element, traces(c, chart), made, CONFIG);
    }
  }
  draw(false);
  for (const [id] of charts) {
    document.getElementById(id).on("plotly_doubleclick", () => zoom(id, "reset"));
  }
  document.documentElement.dataset.charts = String(charts.length);
  darkQuery.addEventListener("change", () => draw(true));
  addEventListener("beforeprint", () => { printing = true; draw(true); });
  addEventListener("afterprint", () => { printing = false; draw(true); });

  // ----------------------------------------------------------------------- zoom
  function zoom(id, action) {
    const full = whole.get(id);
    const [from, to] = document.getElementById(id).layout.xaxis.range;
    const span = to - from;
    let next = {
      in: [from + span / 4, to - span / 4],
      out: [from - span / 2, to + span / 2],
      left: [from - span / 2, to - span / 2],
      right: [from + span / 2, to + span / 2],
      reset: full,
    }[action];
    const size = Math.min(next[1] - next[0], full[1] - full[0]);
    const start = Math.min(Math.max(next[0], full[0]), full[1] - size);
    Plotly.relayout(id, { "xaxis.range": [start, start + size] });
  }
  for (const button of document.querySelectorAll("button[data-chart]")) {
    button.addEventListener("click", () => zoom(button.dataset.chart, button.dataset.do));
  }

  // --------------------------------------------------------------------- tables
  const value = (row, column) => {
    const raw = row.cells[column].dataset.order;
    const number = Number(raw);
    return raw === "" || Number.isNaN(number) ? raw : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  function sort(table, head, column) {
    const state = head.getAttribute("aria-sort");
    const first = head.classList.contains("number") ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = state === first ? other : first;
    table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => sign * compare(value(a, column), value(b, column)));
    table.tBodies[0].append(...rows);
    table.classList.toggle("flat", column !== 0);
  }
  for (const button of document.querySelectorAll("table.sortable th button")) {
    const head = button.closest("th");
    button.addEventListener("click", () => sort(head.closest("table"), head, Number(button.dataset.column)));
  }
})();
