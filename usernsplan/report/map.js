"use strict";
// The closer look: draws the rows of the table between the ids `low` and `high`, on a linear scale.
(function () {
  const LIMIT = 4294967295, BAR = 32, GROUND = 5, LANE = BAR + 2 * GROUND, FLAG = 16, EDGE = 34, NARROW = 2, LOWEST = 0.25;
  const FOCUSABLE = 300;
  const ORDER = ["free", "pool", "useradd", "reserved", "absent", "unlisted", "shared", "subid", "reservation", "quarantine",
    "allocation", "filler", "namespace", "group", "account", "pass"];
  const AREAS = new Set(["pool", "useradd", "reserved", "absent", "free"]);
  const SMALL = new Set(["account", "group", "namespace", "pass"]);
  // Kinds whose names already say what they are.
  const NAMED = new Set(["pool", "useradd", "namespace", "absent", "free"]);
  const view = document.getElementById("view"), detail = document.getElementById("detail");
  const where = document.getElementById("where");

  const claims = Array.from(document.querySelectorAll("#all tbody tr"), (row) => {
    const cells = row.cells;
    const clashes = (row.dataset.c || "").split(" ").filter(Boolean).map((text) => {
      const [start, stop, sort] = text.split("-");
      return { start: Number(start), stop: Number(stop), sort };
    });
    return {
      start: Number(cells[0].textContent), stop: Number(cells[1].textContent) + 1, sort: row.dataset.s,
      kind: row.dataset.k, name: cells[5].textContent, clashes, room: Number(row.dataset.n || 0),
      text: (NAMED.has(row.dataset.k) ? "" : cells[4].textContent + " ") + cells[5].textContent + "\n" + cells[0].textContent + "-" +
        cells[1].textContent + ": " + cells[2].textContent + " " + cells[3].textContent + "\n" + cells[6].textContent
    };
  });
  let low = 0, high = LIMIT, drawn = 0;

  function made(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function bars(found, x) {
    const out = [];
    for (const claim of found) {
      const left = x(Math.max(claim.start, low)), right = x(Math.min(claim.stop, high)), last = out[out.length - 1];
      const narrow = last && right - left < NARROW && left < last.left + NARROW;
      if (narrow || (last && left === last.left && right === last.right)) {
        last.claims.push(claim);
        last.taken += Math.max(right - Math.max(left, last.reach), 0);
        last.reach = Math.max(last.reach, right);
        last.right = Math.max(last.right, right);
      } else {
        // So narrow a gap would be a hairline; the height of the bar shows it.
        if (last && last.taken < last.right - last.left && left - last.right < NARROW / 2) last.right = left;
        out.push({ left, right: Math.max(right, left + NARROW), reach: right, taken: right - left, claims: [claim] });
      }
    }
    return out;
  }

  function told(bar) {
    if (bar.claims.length === 1) return bar.claims[0].text;
    const first = bar.claims[0], last = bar.claims[bar.claims.length - 1];
    if (first.kind === "free") {
      return bar.claims.length + " free ranges, " + first.start + "-" + (last.stop - 1) + ": room for " +
        bar.claims.reduce((sum, claim) => sum + claim.room, 0) + " more\nA click zooms to them.";
    }
    return bar.claims.length + " claims, " + first.start + "-" + (last.stop - 1) + ": " +
      bar.claims.slice(0, 8).map((claim) => claim.name).join(", ") + (bar.claims.length > 8 ? ", … " + last.name : "") +
      "\nA click zooms to them.";
  }

  // The tooltip, for the mouse and for the keyboard; Escape closes it.
  function telling(group, text) {
    const tell = () => { detail.textContent = text; detail.hidden = false; };
    const end = () => { detail.hidden = true; };
    group.addEventListener("pointerenter", tell);
    group.addEventListener("pointerleave", end);
    group.addEventListener("focus", tell);
    group.addEventListener("blur", end);
  }

  function active(shape, text, start, stop, focusable) {
    const group = made("g", { class: "s", role: "img" });
    if (focusable) group.setAttribute("tabindex", "0");
    group.setAttribute("aria-label", text);
    group.append(shape);
    telling(group, text);
    const go = () => { const room = Math.max(stop - start, 16) * 0.15; show(start - room, stop + room); };
    group.addEventListener("click", () => { if (!moved) go(); });
    group.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    return group;
  }

  function short(text, width) {
    const room = Math.floor(width / 7.2);
    return text.length <= room ? text : room > 3 ? text.slice(0, room - 1) + "…" : "";
  }

  function lane(svg, found, sort, top, x) {
    svg.append(made("rect", { class: "frame", x: EDGE, y: top, width: x(high) - EDGE, height: LANE }));
    if (sort !== "both") svg.append(made("text", { class: "axis", x: 6, y: top + 20 }, sort));
    const seen = found.filter((claim) => sort === "both" || claim.sort === sort || claim.sort === "both");
    for (const kind of ORDER) {
      const several = bars(seen.filter((claim) => claim.kind === kind), x);
      for (const bar of several) {
        const whole = kind === "free" || (!AREAS.has(kind) && !SMALL.has(kind));
        // A bar that is half free looks half free; quarantined ranges hang from the top, so that later
        // allocations do not hide them.
        let height = BAR * Math.min(Math.max(bar.taken / (bar.right - bar.left), LOWEST), 1);
        let y = kind === "quarantine" ? top : top + BAR - height;
        if (kind === "free") { y = top; height = BAR; }
        else if (AREAS.has(kind)) { y = top + BAR + (kind === "useradd" ? GROUND : 0); height = GROUND; }
        else if (kind === "namespace") { y = top + BAR - 8; height = 8; }
        else if (kind === "pass") { y = top; height = 8; }
        else if (kind === "account" || kind === "group") { y = top + 8; height = BAR - 8; }
        const width = bar.right - bar.left, first = bar.claims[0], last = bar.claims[bar.claims.length - 1];
        const shape = made("rect", { x: bar.left, y, width, height, fill: kind === "free" ? "transparent" : "url(#p-" + kind + ")" });
        if (width > 4 * NARROW && !AREAS.has(kind)) shape.setAttribute("class", "edge");
        svg.append(active(shape, told(bar), first.start, last.stop, several.length <= FOCUSABLE && !AREAS.has(kind)));
        let start = first.start;
        for (const clash of first.clashes) {
          if ((clash.sort === sort || clash.sort === "both") && clash.start <= start && start < clash.stop && clash.stop < first.stop) start = clash.stop;
        }
        const from = Math.max(bar.left, x(start));
        const label = whole && bar.claims.length === 1 ? short(first.name, bar.right - from - 10) : "";
        if (label) svg.append(made("text", { class: "k k-" + kind, x: from + 6, y: top + 15 }, label));
      }
    }
    let edge = -1, flag = -100;
    const clashes = seen.flatMap((claim) => claim.clashes).filter((clash) => clash.start < high && clash.stop > low &&
      (sort === "both" || clash.sort === sort || clash.sort === "both")).sort((a, b) => a.start - b.start);
    for (const clash of clashes) {
      const left = Math.max(x(Math.max(clash.start, low)), edge);
      const right = Math.max(x(Math.min(clash.stop, high)), left + 2 * NARROW), middle = (left + right) / 2;
      if (x(Math.min(clash.stop, high)) <= edge) continue;
      edge = right;
      const shape = made("rect", { class: "clash", x: left, y: top + BAR - 12, width: right - left, height: 12 });
      const both = seen.filter((claim) => claim.clashes.some((other) => other.start === clash.start && other.stop === clash.stop));
      const text = "Conflict: " + clash.start + "-" + (clash.stop - 1) + " is claimed by " +
        both.map((claim) => claim.name).join(" and ");
      svg.append(active(shape, text, clash.start, clash.stop, true));
      if (middle - flag < 14) continue;
      flag = middle;
      svg.append(made("path", { class: "flag", d: "M" + middle + " " + top + "l-7 -13h14z" }),
        made("text", { class: "bang", x: middle, y: top - 4 }, "!"));
    }
  }

  function axis(svg, top, x, width) {
    const step = (high - low) / Math.max(2, Math.floor(width / 130));
    let unit = 1;
    while (unit < step) unit *= 2;
    let edge = -1;
    for (let number = Math.ceil(low / unit) * unit; number < high; number += unit) {
      const half = String(number).length * 3.3, centre = Math.min(Math.max(x(number), EDGE + half), width - 8 - half);
      if (centre - half < edge) continue;
      edge = centre + half + 8;
      svg.append(made("path", { class: "tick", d: "M" + x(number) + " " + top + "v4" }),
        made("text", { class: "axis", "text-anchor": "middle", x: centre, y: top + 16 }, number));
    }
  }

  // The free ids of the pool in the part that is shown.
  function free(found) {
    const pool = found.find((claim) => claim.kind === "pool");
    // If something of other programs was not seen, nothing is free for certain.
    if (!pool || view.dataset.unseen) return "";
    const start = Math.max(pool.start, low), stop = Math.min(pool.stop, high);
    let left = 0;
    for (const claim of found) {
      if (claim.kind === "free") left += Math.min(claim.stop, stop) - Math.max(claim.start, start);
    }
    const part = left / (stop - start);
    const whole = Math.round(100 * part), odd = (whole === 0 || whole === 100) && part !== whole / 100;
    return ", " + (odd ? (whole ? "over 99" : "under 1") : whole) + " % free";
  }

  function draw() {
    drawn = 0;
    const width = view.clientWidth, inner = width - EDGE - 8;
    if (inner < 50) return;
    const x = (number) => EDGE + inner * (number - low) / (high - low);
    const found = claims.filter((claim) => claim.start < high && claim.stop > low);
    const sorts = found.every((claim) => claim.sort === "both") ? ["both"] : ["uid", "gid"];
    const height = sorts.length * (LANE + FLAG + 4) + 50;
    const svg = made("svg", { class: "ids", width, height, viewBox: "0 0 " + width + " " + height });
    const claimed = found.filter((claim) => !AREAS.has(claim.kind)).length;
    svg.append(made("text", { class: "head", x: EDGE, y: 16 }, low + "-" + (high - 1) + " "));
    svg.lastChild.append(made("tspan", { class: "sub", dx: 10 }, claimed + (claimed === 1 ? " claim" : " claims") + free(found)));
    let top = 22 + FLAG;
    for (const sort of sorts) { lane(svg, found, sort, top, x); top += LANE + FLAG + 4; }
    axis(svg, top - FLAG - 4, x, width);
    detail.hidden = true;
    view.replaceChildren(svg);
  }

  function show(start, stop) {
    const count = Math.min(Math.max(Math.round(stop - start), 16), LIMIT);
    low = Math.min(Math.max(Math.round(start), 0), LIMIT - count);
    high = low + count;
    if (!drawn) drawn = requestAnimationFrame(draw);
  }

  function zoom(factor, part) {
    const centre = low + (high - low) * part;
    show(centre - (centre - low) * factor, centre + (high - centre) * factor);
  }

  function move(part) { show(low + (high - low) * part, high + (high - low) * part); }

  let grabbed = null, moved = false;
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = view.getBoundingClientRect();
    const part = (event.clientX - box.left - EDGE) / (box.width - EDGE - 8);
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(event.deltaX / box.width);
    else zoom(event.deltaY > 0 ? 1.25 : 0.8, Math.min(Math.max(part, 0), 1));
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => { grabbed = { x: event.clientX, low, high }; moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!grabbed) return;
    const by = (grabbed.x - event.clientX) / (view.clientWidth - EDGE - 8) * (grabbed.high - grabbed.low);
    if (Math.abs(event.clientX - grabbed.x) > 3) moved = true;
    if (moved) show(grabbed.low + by, grabbed.high + by);
  });
  window.addEventListener("pointerup", () => { grabbed = null; });
  window.addEventListener("pointercancel", () => { grabbed = null; });
  view.addEventListener("keydown", (event) => {
    const act = { "+": () => zoom(0.5, 0.5), "-": () => zoom(2, 0.5), ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25) };
    if (act[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); act[event.key](); }
  });
  for (const [id, act] of [["in", () => zoom(0.5, 0.5)], ["out", () => zoom(2, 0.5)], ["left", () => move(-0.25)],
    ["right", () => move(0.25)]]) document.getElementById(id).addEventListener("click", act);

  const places = Array.from(document.querySelectorAll("svg.wide [data-region]"), (mark) => mark.dataset.region.split("-"));
  for (const [start, stop] of [...places, [0, 65536], [0, LIMIT]]) {
    const option = document.createElement("option");
    option.value = start + "-" + stop;
    option.textContent = Number(stop) === LIMIT ? "all ids" : start + "-" + (stop - 1);
    if (!Array.from(where.options).some((other) => other.value === option.value)) where.append(option);
  }
  function go() { const [start, stop] = where.value.split("-").map(Number); show(start, stop); }
  where.addEventListener("change", go);
  document.querySelectorAll("[data-region]").forEach((mark) => mark.addEventListener("click", () => {
    where.value = mark.dataset.region;
    go();
    document.getElementById("zoom").scrollIntoView();
  }));

  document.getElementById("zoom").hidden = false;
  view.tabIndex = 0;
  for (const bar of document.querySelectorAll("svg.ids g.s")) {
    const title = bar.querySelector("title");
    bar.setAttribute("aria-label", title.textContent);
    telling(bar, title.textContent);
    title.remove();
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") detail.hidden = true; });
  const busiest = places.map((place) => place.map(Number)).map(([start, stop]) => [claims.filter((claim) =>
    claim.kind === "allocation" && claim.start < stop && claim.stop > start).length, start + "-" + stop]);
  if (busiest.length) where.value = busiest.reduce((best, one) => (one[0] > best[0] ? one : best))[1];
  go();
  window.addEventListener("resize", () => show(low, high));
})();
