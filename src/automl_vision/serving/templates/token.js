"use strict";
// In a function of its own: the page that takes the place of this one has names of its own.
(() => {
  const KEY = "automl-vision token";
  const form = document.getElementById("asking");
  const input = document.getElementById("token");
  const said = document.getElementById("said");

  async function open(token) {
    let response;
    try {
      const headers = { Authorization: `Bearer ${token}`, Accept: "text/html, */*" };
      response = await fetch(location.pathname + location.search, { headers });
    } catch (error) {
      said.textContent = "The server does not answer, or this is no token.";
      return;
    }
    if (response.status === 401) {
      sessionStorage.removeItem(KEY);
      said.textContent = "This is not the token of this server.";
      return;
    }
    sessionStorage.setItem(KEY, token);
    show(await response.text(), response.headers.get("Content-Type") || "");
  }

  function show(text, kind) {
    if (!kind.startsWith("text/html")) {
      const plain = document.createElement("pre");
      plain.textContent = text;
      document.body.replaceChildren(plain);
      return;
    }
    document.open();
    document.write(text); // a page of this server, under the policy that this one has
    document.close();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    open(input.value.trim());
  });
  const kept = sessionStorage.getItem(KEY);
  if (kept) open(kept);
  else input.focus();
})();
