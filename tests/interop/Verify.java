// Judges chains with Java's own verifier (PKIX, RFC 5280 section 6), revocation by CRLs only.
//
//   java Verify.java < cases
//
// A case is a line: NAME ROOTS CHAIN CRLS DAYS. The files are PEM, the chain's first certificate is
// the one that is judged, and DAYS says how many days from now it is judged. The answer is a line
// `NAME accept`, or `NAME refuse REASON`.

import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.CertPath;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertPathBuilderException;
import java.security.cert.CertPathValidator;
import java.security.cert.CertStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Date;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

class Verify {
    private static final CertificateFactory FACTORY = factory();

    public static void main(String[] none) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            String[] words = line.trim().split("\\s+");
            if (words.length == 5) {
                System.out.println(words[0] + " " + judge(words));
            }
        }
    }

    private static String judge(String[] words) throws Exception {
        Set<TrustAnchor> anchors = new HashSet<>();
        for (Certificate root : certificates(words[1])) {
            anchors.add(new TrustAnchor((X509Certificate) root, null));
        }
        List<Object> known = new ArrayList<>(certificates(words[2]));
        X509CertSelector wanted = new X509CertSelector();
        wanted.setCertificate((X509Certificate) known.get(0));
        try (InputStream file = Files.newInputStream(Path.of(words[3]))) {
            known.addAll(FACTORY.generateCRLs(file));
        }
        PKIXBuilderParameters rules = new PKIXBuilderParameters(anchors, wanted);
        rules.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(known)));
        rules.setDate(Date.from(Instant.now().plus(Long.parseLong(words[4]), ChronoUnit.DAYS)));
        CertPathBuilder builder = CertPathBuilder.getInstance("PKIX");
        PKIXRevocationChecker revocation = (PKIXRevocationChecker) builder.getRevocationChecker();
        revocation.setOptions(EnumSet.of(
            PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
        rules.addCertPathChecker(revocation);
        try {
            CertPath path = builder.build(rules).getCertPath();
            // The builder looks for a way; the validator judges the one that it found.
            CertPathValidator.getInstance("PKIX").validate(path, rules);
            return "accept";
        } catch (CertPathBuilderException | java.security.cert.CertPathValidatorException refused) {
            Throwable cause = refused;
            while (cause.getCause() != null) {
                cause = cause.getCause();
            }
            return "refuse " + cause.getMessage().replace('\n', ' ');
        }
    }

    private static Collection<? extends Certificate> certificates(String path) throws Exception {
        String text = Files.readString(Path.of(path));
        List<Certificate> found = new ArrayList<>();
        for (int at = 0; (at = text.indexOf("-----BEGIN CERTIFICATE-----", at)) >= 0; at++) {
            var bytes = text.substring(at).getBytes();
            found.add(FACTORY.generateCertificate(new java.io.ByteArrayInputStream(bytes)));
        }
        return found;
    }

    private static CertificateFactory factory() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (java.security.cert.CertificateException error) {
            throw new IllegalStateException(error);
        }
    }
}
