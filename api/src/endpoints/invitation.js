// Accepts an invitation. The token stands behind the `#` of the link, so that no server's log has it.
const outcome = document.getElementById('outcome');
const send = document.getElementById('send');
const token = location.hash.slice(1);

function tell(text, kind) {
  outcome.textContent = text;
  outcome.className = kind;
}

if (!token) {
  tell('This link is not whole. Open it again from the invitation.', 'bad');
  send.disabled = true;
}

document.getElementById('accept').addEventListener('submit', async (event) => {
  event.preventDefault();
  send.disabled = true;
  const name = document.getElementById('name').value.trim();
  const body = { token, password: document.getElementById('password').value, ...(name && { name }) };
  try {
    const answer = await fetch('/v1/invitations/accept', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    const said = await answer.json();
    if (answer.ok) {
      history.replaceState(null, '', location.pathname);
      document.getElementById('accept').hidden = true;
      tell(`Welcome, ${said.name}. You can sign in as ${said.email} now.`, 'good');
      return;
    }
    tell(said.detail || said.title, 'bad');
  } catch {
    tell('The platform does not answer. Try again.', 'bad');
  }
  send.disabled = false;
});
