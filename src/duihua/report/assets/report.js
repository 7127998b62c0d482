(function () {
  "use strict";
  var root = document.documentElement, key = "duihua-report-language";
  function remembered() { try { return localStorage.getItem(key); } catch (error) { return null; } }
  function remember(language) { try { localStorage.setItem(key, language); } catch (error) { /* private window */ } }
  function show(language) {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    document.querySelectorAll("[data-language]").forEach(function (button) {
      if (button !== root) button.setAttribute("aria-pressed", String(button.dataset.language === language));
    });
  }
  var stored = remembered();
  var browser = (navigator.languages && navigator.languages[0]) || navigator.language || "en";
  var language = stored === "en" || stored === "zh" ? stored : /^zh\b/i.test(browser) ? "zh" : "en";
  root.classList.add("scripted");
  show(language);
  document.addEventListener("DOMContentLoaded", function () {
    show(language);
    document.querySelectorAll("button[data-language]").forEach(function (button) {
      button.addEventListener("click", function () { show(button.dataset.language); remember(button.dataset.language); });
    });
  });
  // Printed pages cannot be clicked: everything folded opens for the printer and closes again.
  var opened = [];
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not([open])").forEach(function (one) { one.open = true; opened.push(one); });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (one) { one.open = false; });
    opened = [];
  });
})();
