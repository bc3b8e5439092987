from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage

mail = EmailMessage()
mail["From"] = "ada@example.org"
mail["To"] = "bob@example.com"
mail["Subject"] = "A test"
mail.set_content("Hello.\n.\nThe line above is a dot.")


def main() -> None:
    context = ssl.create_default_context(cafile="cert.pem")
    with smtplib.SMTP("localhost", 2525, timeout=30) as client:
        client.starttls(context=context)
        client.login("ada", "lovelace")
        client.send_message(mail)
    print("The server has the message")


if __name__ == "__main__":
    main()
