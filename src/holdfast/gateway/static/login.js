// The link that the server prints carries the token behind the #, where no server and no log
// sees it.  It leaves the address at once, before anything else happens.

const form = document.getElementById("login");
const said = document.getElementById("said");

async function signIn(token) {
  said.textContent = "Signing in…";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    // The address without its fragment: a page that may now be seen.
    if (answer.ok) location.reload();
    else said.textContent = "The token in that link is not this server’s. Its state directory has another.";
  } catch {
    said.textContent = "The server does not answer.";
  }
}

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (location.hash) history.replaceState(null, "", location.pathname + location.search);
if (given) signIn(given);
else form.elements.token.focus();
