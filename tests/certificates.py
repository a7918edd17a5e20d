"""A certificate authority that lives for one test."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates

NAME = "farm.example"


class Authority:
    """One self-signed certificate for ``farm.example``, its own authority."""

    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def server_endpoint(self, reactor: Any) -> SSL4ServerEndpoint:
        """A TLS endpoint on a free port of the loopback."""
        options = PrivateCertificate.loadPEM(self.certificate_pem + self.key_pem).options()
        return SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")

    def client_options(self) -> Any:
        """What a client trusts: this authority only."""
        trust = trustRootFromCertificates([Certificate.loadPEM(self.certificate_pem)])
        return optionsForClientTLS(NAME, trustRoot=trust)
