(function () {
  "use strict";
  // Asks this machine, and no other, what there is to show, and puts in what changed. What was opened stays open.
  document.addEventListener("DOMContentLoaded", function () {
    var every = JSON.parse(document.getElementById("data").textContent).every;
    var content = document.getElementById("content"), lost = document.getElementById("lost");
    var last = "";
    function show(html) {
      if (html === last) return;
      last = html;
      var opened = [].map.call(content.querySelectorAll("details"), function (one) { return one.open; });
      var focus = document.activeElement && content.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      content.innerHTML = html;
      content.querySelectorAll("details").forEach(function (one, place) { one.open = Boolean(opened[place]); });
      if (focus) content.querySelectorAll("a").forEach(function (one) { if (one.getAttribute("href") === focus) one.focus(); });
    }
    function ask() {
      if (document.hidden) { window.setTimeout(ask, 1000 * every); return; }
      fetch("content" + location.search, { cache: "no-store" })
        .then(function (answer) { if (!answer.ok) throw new Error(String(answer.status)); return answer.text(); })
        .then(function (html) { lost.hidden = true; show(html); }, function () { lost.hidden = false; })
        .then(function () { window.setTimeout(ask, 1000 * every); });
    }
    window.setTimeout(ask, 1000 * every);
  });
})();
