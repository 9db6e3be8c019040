/* What the browser does by itself: light or dark, logs, and what the page may change. */
"use strict";

(function () {
  const KEY = "hullscreen-scheme";

  function remembered() {
    try {
      return window.localStorage.getItem(KEY);
    } catch (refused) {
      return null; // Cookies and storage may be forbidden.
    }
  }

  function present() {
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    return remembered() || (dark ? "dark" : "light");
  }

  document.documentElement.dataset.scheme = present();

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    hullscreen: {
      scheme: function (clicks) {
        let scheme = present();
        if (clicks) {
          scheme = document.documentElement.dataset.scheme === "dark" ? "light" : "dark";
          try {
            window.localStorage.setItem(KEY, scheme);
          } catch (refused) {
            // It holds until the page is closed.
          }
        }
        document.documentElement.dataset.scheme = scheme;
        return scheme;
      },

      // A crystal takes the browser as long as all other pictures together: they come first.
      afterHull: async function (seen) {
        for (let waits = 0; waits < 200 && !document.querySelector("#hull .main-svg"); waits++) {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        return seen;
      },
    },
  });

  function show(title, lines) {
    document.getElementById("log-title").textContent = title;
    document.getElementById("log-text").textContent = lines.join("\n");
    const dialog = document.getElementById("log");
    if (!dialog.open) {
      dialog.showModal();
    }
  }

  async function answer(response) {
    try {
      return await response.json();
    } catch (malformed) {
      return { message: "the server answered with status " + response.status };
    }
  }

  async function showLog(given) {
    const query = new URLSearchParams([[given.kind, given.number]]);
    const place = "/campaigns/" + encodeURIComponent(given.campaign) + "/log?" + query;
    const found = await answer(await fetch(place, { credentials: "same-origin" }));
    const title = found.title || "Log of " + given.kind + " " + given.number;
    show(title, found.lines || [found.message]);
  }

  async function act(title, place, asked) {
    const response = await fetch(place, {
      method: "POST",
      credentials: "same-origin",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(asked),
    });
    show(title, [(await answer(response)).message]);
  }

  async function rerun(given) {
    const place = "/campaigns/" + encodeURIComponent(given.campaign) + "/rerun";
    await act("Run again: step " + given.number, place, { firework: Number(given.number) });
  }

  async function pauseOrResume(given) {
    // Its address is beside that of the report of the campaign that is chosen.
    const report = document.getElementById("report-link").href;
    await act("Campaign: " + given.action, new URL(given.action, report), {});
  }

  document.addEventListener("click", function (event) {
    const button = event.target.closest("button");
    if (!button) {
      return;
    }
    const unreachable = function (error) {
      show("No answer", ["the server does not answer: " + error.message]);
    };
    if (button.classList.contains("log")) {
      showLog(button.dataset).catch(unreachable);
    } else if (button.classList.contains("rerun")) {
      rerun(button.dataset).catch(unreachable);
    } else if (button.classList.contains("action")) {
      pauseOrResume(button.dataset).catch(unreachable);
    } else if (button.id === "log-close") {
      document.getElementById("log").close();
    }
  });
})();
