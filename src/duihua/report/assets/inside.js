(function () {
  "use strict";
  // All text goes in by textContent: what a user or a model wrote is never read as HTML.
  var data = JSON.parse(document.getElementById("data").textContent);
  function make(tag, className, text) {
    var element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function both(en, zh) {
    var pair = document.createDocumentFragment(), a = make("span", "en", en), b = make("span", "zh", zh);
    a.lang = "en"; b.lang = "zh-CN";
    pair.append(a, b);
    return pair;
  }
  function percent(share) { return share >= 0.995 ? "100%" : share < 0.005 ? (share > 0 ? "<1%" : "0") : Math.round(100 * share) + "%"; }
  function number(value) { return value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "\u2212"); }
  function channels(name) {
    var hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
    return [0, 2, 4].map(function (at) { return parseInt(hex.slice(at, at + 2), 16); });
  }
  function mixed(share, towards) {
    var from = channels("--card"), to = channels(towards || "--accent");
    return "rgb(" + from.map(function (c, i) { return Math.round(c + (to[i] - c) * share); }).join(",") + ")";
  }
  function colour(cell, share, towards) {
    cell.style.backgroundColor = mixed(Math.min(1, Math.abs(share)), towards);
    cell.classList.toggle("strong", Math.abs(share) > 0.55);
  }
  function paint(canvas, rows, low) {
    // low: the causal mask hides what stands above the diagonal
    var height = rows.length, width = rows[0].length, size = Math.max(1, Math.floor(480 / Math.max(width, height)));
    canvas.width = width * size; canvas.height = height * size;
    var brush = canvas.getContext("2d");
    for (var i = 0; i < height; i++) for (var j = 0; j < width; j++) {
      brush.fillStyle = low && j > i ? mixed(0.35, "--line") : mixed(Math.min(1, rows[i][j] / 1000));
      brush.fillRect(j * size, i * size, size - (size > 6 ? 1 : 0), size - (size > 6 ? 1 : 0));
    }
  }
  function readOut(place, name, pairs, en, zh) {
    place.replaceChildren(make("b", "", name));
    place.append(both(" " + en + " ", " " + zh + " "));
    pairs.forEach(function (pair, at) {
      if (at) place.append("\u2002");
      var word = make("b", "", pair[0]);
      place.append(word, " " + percent(pair[1]));
    });
  }
  function best(row, labels, count) {
    return row.map(function (share, at) { return [labels[at], share / 1000]; })
      .sort(function (a, b) { return b[1] - a[1]; }).slice(0, count);
  }
  // One viewer for self- and cross-attention: `from` looks at `to`.
  function viewer(root, weights, from, to, causal) {
    var layers = weights.length, heads = weights[0].length, layer = layers - 1, head = heads > 1 ? -1 : 0, chosen = from.length - 1;
    var strips = root.querySelectorAll(".strip"), readout = root.querySelector(".readout"), matrix = root.querySelector("canvas.matrix");
    var layerSelect = root.querySelector("select.layer"), headSelect = root.querySelector("select.head"), grid = root.querySelector(".heads");
    function rowsOf(l, h) {
      if (h >= 0) return weights[l][h];
      return weights[l][0].map(function (row, i) {
        return row.map(function (_, j) { var sum = 0; for (var k = 0; k < heads; k++) sum += weights[l][k][i][j]; return sum / heads; });
      });
    }
    function chips(strip, labels, act) {
      return labels.map(function (label, at) {
        var chip = make("button");
        chip.type = "button";
        chip.append(make("bdi", "", label), make("small"));
        if (act) ["mouseenter", "focus", "click"].forEach(function (event) { chip.addEventListener(event, function () { chosen = at; update(); }); });
        strip.append(chip);
        return chip;
      });
    }
    var fromChips = chips(strips[0], from, true), toChips = strips.length > 1 ? chips(strips[1], to, false) : fromChips;
    for (var l = 0; l < layers; l++) layerSelect.append(new Option(String(l + 1), String(l)));
    if (heads > 1) { var mean = new Option("", "-1"); mean.textContent = "\u2300"; headSelect.append(mean); }
    for (var h = 0; h < heads; h++) headSelect.append(new Option(String(h + 1), String(h)));
    var thumbs = [];
    grid.style.gridTemplateColumns = "auto repeat(" + heads + ", minmax(" + (heads > 6 ? "1.6rem" : "2.6rem") + ", 1fr))";
    for (l = 0; l < layers; l++) {
      grid.append(make("span", "", String(l + 1)));
      for (h = 0; h < heads; h++) (function (l, h) {
        var button = make("button"), canvas = make("canvas");
        button.type = "button";
        button.setAttribute("aria-label", (l + 1) + " / " + (h + 1));
        button.append(canvas);
        button.addEventListener("click", function () { layer = l; head = h; update(); });
        grid.append(button);
        thumbs.push({ layer: l, head: h, button: button, canvas: canvas });
      })(l, h);
    }
    function repaint() { thumbs.forEach(function (one) { paint(one.canvas, weights[one.layer][one.head], causal); }); }
    function update() {
      var rows = rowsOf(layer, head), row = rows[chosen];
      layerSelect.value = String(layer); headSelect.value = String(head);
      thumbs.forEach(function (one) { one.button.setAttribute("aria-pressed", String(one.layer === layer && (head < 0 || one.head === head))); });
      fromChips.forEach(function (chip, at) { chip.setAttribute("aria-pressed", String(at === chosen)); });
      toChips.forEach(function (chip, at) {
        var hidden = causal && at > chosen;
        colour(chip, hidden ? 0 : row[at] / 1000);
        chip.classList.toggle("hidden-token", hidden);
        chip.lastChild.textContent = hidden ? "" : percent(row[at] / 1000);
      });
      readOut(readout, from[chosen], best(causal ? row.slice(0, chosen + 1) : row, to, 4), "looks at", "看");
      paint(matrix, rows, causal);
      root.dispatchEvent(new CustomEvent("chosen", { detail: { layer: layer, head: Math.max(0, head) } }));
    }
    matrix.addEventListener("mousemove", point);
    matrix.addEventListener("click", point);
    function point(event) {
      var box = matrix.getBoundingClientRect();
      var at = Math.floor((event.clientY - box.top) / box.height * from.length);
      if (at >= 0 && at < from.length && at !== chosen) { chosen = at; update(); }
    }
    layerSelect.addEventListener("change", function () { layer = Number(layerSelect.value); update(); });
    headSelect.addEventListener("change", function () { head = Number(headSelect.value); update(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { repaint(); update(); });
    repaint(); update();
  }
  function layerName(number) { return number ? both("layer " + number, "第 " + number + " 层") : both("embedding", "词嵌入"); }
  function table(place, head, rows) {
    var made = make("table", "cells"), top = made.createTHead().insertRow(), body = made.createTBody();
    top.append(make("th"));
    head.forEach(function (label) { var cell = make("th"); cell.scope = "col"; cell.append(make("bdi", "", label)); top.append(cell); });
    rows.forEach(function (row) {
      var line = body.insertRow(), name = make("th");
      name.scope = "row";
      name.append(row.name);
      line.append(name);
      row.cells.forEach(function (fill) { fill(line.insertCell()); });
    });
    place.append(made);
  }
  function lens(root) {
    var readout = root.querySelector(".readout"), layers = data.lens.layers;
    table(root.querySelector(".scroll"), data.tokens, layers.map(function (layer, number) {
      return { name: layerName(number), cells: layer.map(function (top, at) {
        return function (cell) {
          var button = make("button");
          button.type = "button";
          button.append(make("bdi", "", top[0][0]));
          cell.append(button);
          colour(cell, top[0][1]);
          function show() { readOut(readout, data.tokens[at], top, "\u2192", "\u2192"); }
          cell.addEventListener("mouseenter", show);
          button.addEventListener("focus", show);
        };
      }) };
    }).reverse());
    readOut(readout, data.tokens[data.tokens.length - 1], layers[layers.length - 1][data.tokens.length - 1], "\u2192", "\u2192");
  }
  function change(root) {
    table(root.querySelector(".scroll"), data.tokens, data.change.previous.map(function (layer, at) {
      return { name: layerName(at + 1), cells: layer.map(function (cosine) {
        return function (cell) { cell.textContent = number(cosine); colour(cell, Math.max(0, 1 - cosine)); };
      }) };
    }).reverse());
  }
  function walk(root, layer, head) {
    var found = data.walks[layer][head], place = root.querySelector(".steps");
    place.replaceChildren();
    Object.keys(found.steps).forEach(function (name, at) {
      var figure = make("figure"), caption = make("figcaption", "", (at + 1) + "  "), rows = found.steps[name];
      var title = data.walk_titles[name], square = data.walk_square.indexOf(name) >= 0;
      caption.append(both(title.en, title.zh));
      figure.append(caption);
      var most = Math.max.apply(null, rows.map(function (row) { return Math.max.apply(null, row.map(function (x) { return x === null ? 0 : Math.abs(x); })); })) || 1;
      if (name === "weights") most = 1;
      table(figure, square ? found.tokens : rows[0].map(function (_, i) { return String(i + 1); }), rows.map(function (row, i) {
        return { name: make("bdi", "", found.tokens[i]), cells: row.map(function (x) {
          return function (cell) {
            if (x === null) { cell.textContent = "\u2212\u221e"; cell.className = "masked"; return; }
            cell.textContent = number(x);
            colour(cell, 0.85 * x / most, x < 0 ? "--warn" : "--accent");
          };
        }) };
      }));
      place.append(figure);
    });
    root.querySelector(".readout").replaceChildren(
      both("Layer " + found.layer + ", head " + found.head, "第 " + found.layer + " 层，第 " + found.head + " 头"));
  }
  document.addEventListener("DOMContentLoaded", function () {
    var attention = document.getElementById("attention"), walked = document.getElementById("walk"), crossed = document.getElementById("cross");
    if (walked) walk(walked, 0, 0);
    if (attention) {
      if (walked) attention.addEventListener("chosen", function (event) {
        var row = data.walks[event.detail.layer];
        if (row && row[event.detail.head]) walk(walked, event.detail.layer, event.detail.head);
      });
      viewer(attention, data.attention, data.tokens, data.tokens, true);
      lens(document.getElementById("lens"));
      change(document.getElementById("change"));
    }
    if (crossed) viewer(crossed, data.cross.weights, data.cross.target, data.cross.source, false);
  });
})();
